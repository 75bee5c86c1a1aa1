/**
 * The vocabulary of the small world: word lists by kind, about 2,500 different words. Everything that `run tiny` writes is composed from
 * these lists, the facts of `world_facts.ts` and the sentence forms of `world_stories.ts`.
 */

function words(text: string): readonly string[] {
  return text.trim().split(/\s+/).map((word) => word.replaceAll("_", " "));
}

/** Verbs by form: a row of the list is "base past participle-in-ing". */
function verbs(text: string): readonly { base: string; past: string; ing: string }[] {
  return text.trim().split("\n").flatMap((line) => line.trim().split(", ")).map((entry) => {
    const [base, past, ing] = entry.trim().split(" ");
    return { base, past, ing };
  });
}

/** First names of the people, girls and boys by turns. */
export const FIRST_NAMES = words(`
  Mira Tobin Elsa Rufus Nadia Caspar Willa Jonas Petra Oscar Lena Hugo Tilda Felix Greta Simon Ivy Bruno Clara Anton
  Daphne Milo Edith Leon Freya Victor Hazel Ruben Iris Gideon Josie Marcus Kira Nils Lotte Otto Maeve Piers Nora Quentin
  Olga Silas Pearl Tomas Rosa Ulric Selma Wendel Thea Ansel Una Boris Vera Cyril Winnie Duncan Yara Edgar Zelda Fergus
  Agnes Gilbert Bella Harvey`);

/** Family names, one for each person. */
export const LAST_NAMES = words(`
  Holt Marsh Penrose Vale Okafor Lindgren Sato Brandt Moreau Quill Tanner Frost Adeyemi Barlow Castell Drummond
  Everly Fairweather Grimm Hartley Ibsen Jarvis Kowal Larkin Mendoza Nightingale Oakes Pellham Quist Rowe Sorrel Thorne
  Underhill Vance Whitlock Yates Zimmer Abbot Birchall Crane Dahl Ellery Fenwick Garland Hawke Inwood Joyce Kemp
  Lomax Mercer Norwood Osgood Pike Ravenel Sterling Tate Upton Vickers Wren Yardley Ashby Blythe Cotter Dunmore`);

/** Towns of the world. */
export const TOWNS = words(`
  Otterbridge Maplewick Stonehaven Fernhill Brackwater Silverford Hollowell Pinemoor Larkspur Windermark Copperfield Saltmere
  Thistledown Ravenscar Honeybrook Ashdown Greywick Lowbury Eastmarch Wolfsden Cloverton Amberley Dunwater Foxmere
  Harrowgate Kestrel_Bay Millbrook Northwold Oakensted Quarry_Hill Rosemoor Tidewell`);

/** Rivers and lakes. */
export const RIVERS = words(`
  Alder Bramble Cinder Dove Ember Fallow Glimmer Heron Indigo Juniper Kettle Lantern Marrow Nettle Osprey Pebble`);

/** Regions that the towns lie in. */
export const REGIONS = words(`Northreach Westfold Sunmark Lakeland Highmoor Seaward Midvale Greenholt`);

/** Names that people give to their animals. */
export const PET_NAMES = words(`
  Pip Biscuit Shadow Pepper Mossy Ziggy Button Clover Dusty Echo Fudge Gizmo Hobnob Inky Jasper Kipper Lola Muffin
  Nugget Olive Patch Quince Rusty Sprocket Toffee Umber Velvet Waffles Yoyo Zephyr Acorn Bandit Cocoa Domino Elf Flint
  Ginger Hamlet Icicle Juno Koko Lucky Marble Noodle Oreo Pudding Rolo Scout Tinker Turnip Vixen Whisper Yeti Zuzu
  Apollo Bramley Crumpet Dash Ernie Figaro Gnocchi Hopper Indy Jelly`);

/** Kinds of animals that people keep. */
export const PET_KINDS = words(`dog cat rabbit parrot tortoise hamster goat pony duck ferret hen canary`);

/** Occupations. */
export const JOBS = words(`
  baker carpenter teacher doctor gardener blacksmith fisherman librarian tailor painter miller nurse clockmaker shepherd
  potter postman beekeeper cobbler cook sailor weaver mason farmer glassblower musician pilot plumber ranger actor
  astronomer barber brewer butcher chemist dentist diver editor engineer ferryman florist`);

/** Where each kind of work is done, in the order of JOBS. */
export const WORKPLACES = words(`
  bakery workshop school hospital nursery forge harbour library tailor's_shop studio mill clinic clock_shop pasture
  pottery post_office apiary shoe_shop inn boatyard weaving_mill quarry farm glassworks concert_hall airfield waterworks forest_lodge theatre
  observatory barbershop brewery butcher's_shop pharmacy dental_practice diving_school newspaper power_station ferry_landing flower_shop`);

/** Foods that somebody can like best. */
export const FOODS = words(`
  pancakes dumplings lentil_soup apple_pie noodles cheese_toast tomato_stew plum_cake roast_chicken fish_pie
  mushroom_risotto potato_salad cinnamon_rolls bean_burritos pumpkin_bread rice_pudding leek_tart lemon_biscuits
  carrot_curry egg_sandwiches berry_crumble onion_rings walnut_bread vegetable_pasties`);

/** Pastimes, in the form that follows "likes". */
export const HOBBIES = words(`
  painting fishing knitting chess swimming hiking dancing singing juggling skating sailing archery baking camping cycling
  gardening pottery reading rowing running sewing stargazing climbing whittling`);

/** Colours. */
export const COLOURS = words(`
  red blue green yellow orange purple brown black white grey silver golden crimson scarlet violet turquoise pink ivory
  amber emerald`);

/** What a town is known for. */
export const PRODUCTS = words(`
  cheese honey pottery wool candles apples clocks paper boats bells lace salt glass roses bread carpets cider umbrellas
  violins kites pears soap baskets maps lanterns chocolate marbles tea puppets ropes mustard buttons`);

/** What stands in a town. */
export const LANDMARKS = words(`
  lighthouse windmill stone_bridge castle clock_tower cathedral market_hall old_oak fountain museum waterwheel monastery
  amphitheatre aqueduct watchtower greenhouse`);

export const BIRDS = words(`
  sparrow robin heron owl crow magpie swallow swan goose eagle falcon hawk pigeon dove finch wren thrush starling kingfisher
  woodpecker pelican puffin seagull stork lark cuckoo raven pheasant quail jay`);
export const MAMMALS = words(`
  fox wolf bear deer moose hare squirrel hedgehog badger otter beaver mole mouse rat bat lynx boar bison elk weasel
  seal whale dolphin horse cow sheep donkey pig monkey tiger lion elephant giraffe zebra camel panda kangaroo hippo`);
export const SMALL_ANIMALS = words(`
  frog toad newt lizard snake turtle trout salmon perch carp eel crab lobster shrimp snail slug worm beetle ant bee wasp
  butterfly moth dragonfly grasshopper cricket spider ladybird firefly mosquito`);
export const TREES = words(`
  oak birch pine maple willow elm beech cedar spruce poplar chestnut hazel rowan yew larch cypress holly sycamore aspen
  hawthorn`);
export const FLOWERS = words(`
  rose tulip daisy lily poppy violet sunflower daffodil bluebell lavender marigold orchid iris peony primrose snowdrop
  foxglove buttercup carnation jasmine`);
export const FRUITS = words(`
  apple pear plum cherry peach apricot grape lemon orange lime melon strawberry raspberry blackberry blueberry currant fig
  quince banana mango pineapple gooseberry`);
export const VEGETABLES = words(`
  carrot potato onion leek cabbage turnip beetroot radish pea bean lentil pumpkin marrow cucumber tomato pepper spinach
  lettuce celery garlic parsnip mushroom`);
export const TOOLS = words(`
  hammer saw chisel spade rake shovel axe ladder rope bucket nail screwdriver wrench pliers drill file needle thread scissors
  broom brush mop wheelbarrow anvil bellows compass telescope magnifying_glass ruler measuring_tape lantern torch candle
  whistle net hook anchor oar paddle crowbar trowel sickle hoe pitchfork funnel sieve`);
export const KITCHEN = words(`
  pot pan kettle teapot cup mug plate bowl spoon fork knife ladle jug jar bottle tray oven stove basket barrel tin glass
  napkin tablecloth apron whisk grater rolling_pin saucer pitcher`);
export const FURNITURE = words(`
  table chair bench stool shelf cupboard bed sofa desk lamp mirror rug curtain clock chest drawer wardrobe cradle pillow
  blanket quilt mattress armchair bookcase`);
export const CLOTHES = words(`
  coat jacket scarf hat cap glove mitten sock shoe boot sandal slipper shirt blouse sweater vest skirt dress trousers belt
  cloak raincoat apron bonnet ribbon necklace bracelet ring`);
export const TOYS = words(`
  ball doll kite top puzzle drum trumpet flute whistle marble puppet hoop yo-yo sledge swing see-saw rocking_horse paper_boat
  toy_train wooden_soldier music_box spinning_wheel teddy_bear skipping_rope`);
export const TREASURES = words(`
  map letter key coin medal locket diary photograph postcard stamp feather shell pebble crystal pearl button bell book notebook
  recipe painting poem ticket telegram parcel envelope badge ribbon pocket_watch inkwell`);
export const VEHICLES = words(`
  cart wagon bicycle boat canoe raft ship train tram bus lorry tractor sleigh carriage balloon barge scooter motorbike van
  ferry`);
export const BUILDINGS = words(`
  house cottage barn shed tower palace temple church inn shop market station school library museum theatre factory
  bakery stable warehouse greenhouse hut cabin mansion tavern gatehouse cellar attic kitchen garage`);
export const LANDSCAPE = words(`
  forest meadow hill valley mountain cliff cave beach island swamp field orchard garden pond stream waterfall desert canyon
  shore bay glacier plateau grove ravine marsh moor dune harbour path road crossroads clearing thicket hedge`);
export const MATERIALS = words(`
  wood stone iron copper silver gold clay glass paper leather wool cotton silk linen straw wax ivory bronze brass tin marble
  slate brick rubber velvet bone amber felt`);
export const BODY = words(`
  hand arm elbow shoulder finger thumb knee foot ankle toe back neck head nose ear eye cheek chin forehead`);
export const INSTRUMENTS = words(`
  violin piano guitar flute drum trumpet cello harp clarinet accordion banjo organ fiddle tuba oboe mandolin`);
export const WEATHER = words(`
  sunny rainy windy foggy snowy stormy cloudy frosty misty warm chilly mild humid drizzly breezy bright grey icy`);
export const FEELINGS = words(`
  happy sad proud angry afraid curious tired hungry lonely brave nervous excited bored calm grateful jealous cheerful gloomy
  hopeful worried surprised shy confused relieved thoughtful eager restless ashamed delighted puzzled impatient content
  annoyed amused anxious determined`);
export const TRAITS = words(`
  kind clever patient stubborn generous honest careful careless gentle quiet noisy lazy busy wise foolish polite rude funny
  serious friendly cunning humble bold timid loyal clumsy graceful tidy messy punctual forgetful talkative modest inventive
  sensible dreamy thrifty hardworking`);
export const QUALITIES = words(`
  old new big small tall short wide narrow heavy light long round square flat sharp smooth rough soft hard shiny dull clean
  dirty dusty wet dry broken tiny huge enormous beautiful ugly plain fancy strange ordinary rare precious cheap simple
  delicate sturdy crooked straight hollow solid slippery sticky fragile ancient modern faded polished painted carved striped
  spotted woollen wooden rusty muddy frozen cracked empty full secret forgotten hidden famous useful useless curious warm
  cold dark pale`);
export const MANNER = words(`
  slowly quickly quietly loudly carefully gladly sadly proudly angrily bravely gently kindly suddenly patiently politely
  nervously happily eagerly calmly firmly softly hastily lazily neatly secretly silently steadily thoughtfully wearily wisely
  cheerfully curiously eventually immediately warmly coldly boldly honestly solemnly swiftly`);
export const SPOKEN = words(`
  said whispered shouted answered replied called cried muttered laughed sighed explained announced suggested declared
  murmured exclaimed`);
export const MOVED = words(`
  walked ran hurried wandered strolled crept climbed marched rushed limped tiptoed trudged galloped cycled rowed travelled
  skipped stumbled paced jogged`);
export const VIRTUES = words(`
  patience courage honesty kindness friendship curiosity hope trust generosity humour practice wisdom luck care effort
  gratitude forgiveness truth teamwork modesty`);
export const SUBJECTS = words(`
  history music geography weather arithmetic astronomy cooking painting poetry gardening medicine farming sailing carpentry
  language travel`);
export const ORDINALS = words(`first second third fourth fifth sixth seventh eighth ninth tenth`);
export const NUMBER_WORDS = words(`
  zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen
  nineteen twenty`);
export const TENS = words(`ten twenty thirty forty fifty sixty seventy eighty ninety`);
export const WEEKDAYS = words(`Monday Tuesday Wednesday Thursday Friday Saturday Sunday`);
export const MONTHS = words(`
  January February March April May June July August September October November December`);
export const MONTH_DAYS = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] as const;
export const SEASONS = words(`winter spring summer autumn`);

/** Verbs that take a thing: "She {past} the lantern". */
export const HANDLE_VERBS = verbs(`
  carry carried carrying, lift lifted lifting, drop dropped dropping, find found finding, lose lost losing, hide hid hiding, paint painted painting
  mend mended mending, break broke breaking, polish polished polishing, wash washed washing, buy bought buying, sell sold selling, borrow borrowed borrowing
  lend lent lending, steal stole stealing, build built building, carve carved carving, draw drew drawing, count counted counting, examine examined examining
  measure measured measuring, open opened opening, close closed closing, shake shook shaking, throw threw throwing, catch caught catching, push pushed pushing
  pull pulled pulling, drag dragged dragging, wrap wrapped wrapping, unwrap unwrapped unwrapping, clean cleaned cleaning, decorate decorated decorating
  repair repaired repairing, collect collected collecting, admire admired admiring, describe described describing, inspect inspected inspecting
  replace replaced replacing, weigh weighed weighing, exchange exchanged exchanging, bury buried burying, notice noticed noticing, remember remembered remembering
  forget forgot forgetting, discover discovered discovering, design designed designing, deliver delivered delivering, donate donated donating
  display displayed displaying, fetch fetched fetching, grab grabbed grabbing, hang hung hanging, label labelled labelling, load loaded loading
  mark marked marking, offer offered offering, order ordered ordering, pack packed packing, place placed placing, present presented presenting
  prepare prepared preparing, protect protected protecting, receive received receiving, recognise recognised recognising, remove removed removing
  return returned returning, reveal revealed revealing, rub rubbed rubbing, scratch scratched scratching, search searched searching, share shared sharing
  squeeze squeezed squeezing, store stored storing, touch touched touching, trade traded trading, turn turned turning, varnish varnished varnishing`);

/** Verbs without an object: "They {past} until it was dark". */
export const ACT_VERBS = verbs(`
  wait waited waiting, sleep slept sleeping, dream dreamed dreaming, smile smiled smiling, laugh laughed laughing, cry cried crying, sing sang singing
  dance danced dancing, whistle whistled whistling, work worked working, rest rested resting, play played playing, argue argued arguing, listen listened listening
  think thought thinking, wonder wondered wondering, worry worried worrying, hope hoped hoping, practise practised practising, study studied studying
  read read reading, write wrote writing, cook cooked cooking, eat ate eating, drink drank drinking, talk talked talking, whisper whispered whispering
  stare stared staring, tremble trembled trembling, shiver shivered shivering, yawn yawned yawning, stretch stretched stretching, nod nodded nodding
  shrug shrugged shrugging, blush blushed blushing, hum hummed humming, gossip gossiped gossiping, daydream daydreamed daydreaming, celebrate celebrated celebrating
  quarrel quarrelled quarrelling, relax relaxed relaxing, travel travelled travelling, improvise improvised improvising, experiment experimented experimenting`);

/** Animal noises and doings: "The dog {past}". */
export const PET_VERBS = verbs(`
  sniff sniffed sniffing, jump jumped jumping, hide hid hiding, scratch scratched scratching, nibble nibbled nibbling, snore snored snoring
  wriggle wriggled wriggling, roll rolled rolling, blink blinked blinking, stare stared staring, scamper scampered scampering, hop hopped hopping
  sneeze sneezed sneezing, curl curled curling, tremble trembled trembling, escape escaped escaping, dig dug digging, chew chewed chewing
  rest rested resting, squeak squeaked squeaking, wander wandered wandering, pounce pounced pouncing`);

/** Everyday things that can be counted, with their plural. */
export const COUNTABLES: readonly (readonly [one: string, many: string])[] = words(`
  apple/apples pear/pears plum/plums egg/eggs loaf/loaves coin/coins marble/marbles button/buttons book/books candle/candles
  shell/shells stamp/stamps ribbon/ribbons nail/nails brick/bricks basket/baskets fish/fish sheep/sheep goose/geese
  cherry/cherries berry/berries potato/potatoes box/boxes glass/glasses card/cards pencil/pencils feather/feathers
  stone/stones seed/seeds leaf/leaves cup/cups plate/plates lamp/lamps kite/kites bell/bells ticket/tickets`)
  .map((pair) => {
    const [one, many] = pair.split("/");
    return [one, many] as const;
  });

/** What a kind of thing is called, with its members: for sentences like "A heron is a bird". */
export const KINDS: readonly (readonly [kind: string, members: readonly string[]])[] = [
  ["bird", BIRDS],
  ["mammal", MAMMALS],
  ["small animal", SMALL_ANIMALS],
  ["tree", TREES],
  ["flower", FLOWERS],
  ["fruit", FRUITS],
  ["vegetable", VEGETABLES],
  ["tool", TOOLS.filter((word) => !["scissors", "pliers", "bellows"].includes(word))],
  ["kitchen thing", KITCHEN],
  ["piece of furniture", FURNITURE],
  ["piece of clothing", CLOTHES.filter((word) => !word.endsWith("s") || word === "dress")],
  ["toy", TOYS],
  ["vehicle", VEHICLES],
  ["building", BUILDINGS],
  ["musical instrument", INSTRUMENTS],
];

/** All single words that can be spelled or whose letters can be counted: lower case, letters only, no doubles, sorted. */
export const SPELLABLE: readonly string[] = [
  ...new Set(
    [
      ...KINDS.flatMap(([_, members]) => members),
      ...JOBS,
      ...PRODUCTS,
      ...COLOURS,
      ...HOBBIES,
      ...LANDSCAPE,
      ...MATERIALS,
      ...TREASURES,
      ...BODY,
      ...FEELINGS,
      ...TRAITS,
      ...QUALITIES,
      ...MANNER,
      ...VIRTUES,
      ...SUBJECTS,
      ...HANDLE_VERBS.map((verb) => verb.base),
      ...ACT_VERBS.map((verb) => verb.base),
    ].filter((word) => /^[a-z]{3,}$/.test(word)),
  ),
].sort();

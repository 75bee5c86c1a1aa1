/**
 * The sentence forms of the small world's prose: stories in beats (opening, wish, trouble, help, attempts, end), letters, diaries,
 * instructions, descriptions. Slots: {who}, {first}, {he}, {him}, {his} and the facts of the hero; {who2}, {first2}, {he2} … of a second
 * person; {town} … of the place; everything else is drawn from LISTS.
 */
import * as w from "./world_words.ts";

const quality = [...w.QUALITIES, ...w.COLOURS];
const thing = [
  ...w.TOOLS.filter((word) => word !== "scissors" && word !== "pliers" && word !== "bellows"),
  ...w.KITCHEN,
  ...w.TOYS,
  ...w.TREASURES,
  ...w.INSTRUMENTS,
];

/** Word lists that slots are drawn from, by the name of the slot. */
export const LISTS: Readonly<Record<string, readonly string[]>> = {
  bird: w.BIRDS,
  mammal: w.MAMMALS,
  critter: w.SMALL_ANIMALS,
  animal: [...w.BIRDS, ...w.MAMMALS, ...w.SMALL_ANIMALS],
  tree: w.TREES,
  flower: w.FLOWERS,
  fruit: w.FRUITS,
  vegetable: w.VEGETABLES,
  dish: w.FOODS,
  tool: w.TOOLS.filter((word) => !word.endsWith("s") || word === "compass"),
  kitchen: w.KITCHEN,
  furniture: w.FURNITURE,
  garment: w.CLOTHES.filter((word) => !word.endsWith("s") || word === "dress"),
  toy: w.TOYS,
  treasure: w.TREASURES,
  vehicle: w.VEHICLES,
  building: w.BUILDINGS,
  land: w.LANDSCAPE,
  material: w.MATERIALS,
  body: w.BODY,
  instrument: w.INSTRUMENTS,
  weather: w.WEATHER,
  feeling: w.FEELINGS,
  trait: w.TRAITS,
  quality,
  thing,
  manner: w.MANNER,
  said: w.SPOKEN,
  went: w.MOVED,
  virtue: w.VIRTUES,
  subject: w.SUBJECTS,
  tint: w.COLOURS,
  pastime: w.HOBBIES,
  trade: w.JOBS,
  goods: w.PRODUCTS,
  weekday: w.WEEKDAYS,
  month: w.MONTHS,
  season: w.SEASONS,
  number: w.NUMBER_WORDS.slice(2),
  ordinal: w.ORDINALS,
  stranger: w.JOBS,
  place: w.TOWNS,
  stream: w.RIVERS,
  handled: w.HANDLE_VERBS.map((verb) => verb.past),
  handle: w.HANDLE_VERBS.map((verb) => verb.base),
  handling: w.HANDLE_VERBS.map((verb) => verb.ing),
  acted: w.ACT_VERBS.map((verb) => verb.past),
  act: w.ACT_VERBS.map((verb) => verb.base),
  acting: w.ACT_VERBS.map((verb) => verb.ing),
  petDid: w.PET_VERBS.map((verb) => verb.past),
  petDoing: w.PET_VERBS.map((verb) => verb.ing),
};

/** Where and when, who: {who} is named here first. */
export const OPENINGS = [
  "One {weather} morning in {season}, {who} {went} through {town}.",
  "It was {a:weather} {weekday} in {month}, and {who} was {acting} in front of the {building}.",
  "Once, in the town of {town}, there lived {a:trait} {job} called {who}.",
  "{who}, the {job}, woke up early on {weekday}, because somebody {acted} outside the window.",
  "Long before the {building} of {town} was built, people told this story about {who}.",
  "On the {ordinal} day of {month}, {who} {went} to the {land} behind {town}.",
  "Everybody in {home} knew {who}, the {trait} {job}.",
  "The {season} had been {weather}, and {who} felt {feeling#1}.",
  "Late in {month}, when the {tree} trees were {tint}, {who} {handled} {a:quality} {thing#1} near the river {river}.",
  "At the {workplace}, {who} was {acting} again.",
  "There was once {a:trait} {job} in {home} whose name was {who}.",
  "Nobody in {town} would ever forget the {weekday} when {who} {handled} the {landmark}'s {thing}.",
  "{first} {went} to the {workplace} as on every {weekday}.",
  "It had rained for {number} days in {region}, and {who} could only stay at home.",
];

/** More about the hero: facts woven into the story. */
export const INTRODUCTIONS = [
  "{he} was {age} years old and lived in {home} with {his} {petKind}, {petName}.",
  "{he} lived in {home}, where {he} worked as {a:job}.",
  "Beside {him} sat {petName}, {his} {trait} {petKind}.",
  "{he} was {a:trait} and {trait} person who loved {hobby} and {food}.",
  "{he} wore {a:colour} {garment}, since {colour} was {his} favourite colour.",
  "In {his} bag there was some of {his} favourite food: {food}.",
  "{petName} the {petKind} {petDid} {manner} by {his} side.",
  "After work at the {workplace}, {he} usually went {acting} or spent the time with {hobby}.",
  "{his} birthday was in {birthMonth}, and {his} best friend was {friend}.",
  "People said that no {job} in {region} was more {trait} than {first}.",
  "{he} had been {a:job} for {number} years and was still {trait}.",
  "{home}, where {he} lived, was known for its {product}, but {first} cared more for {hobby}.",
];

/** What the hero wants. {thing#1} is the thing that the story is about. */
export const WISHES = [
  "{he} wanted {a:quality#1} {thing#1} more than anything else.",
  "That morning {he} had lost the {quality#1} {thing#1} that {his} [mother|father|grandmother|uncle|aunt|teacher] had given {him}.",
  '"I need {a:quality#1} {thing#1}," {he} {said}.',
  "{he} had promised to {handle} {a:quality#1} {thing#1} before {weekday}.",
  "Under the {tree} tree {he} found {a:quality#1} {thing#1} made of {material}.",
  "{a:stranger} had asked {him} to bring {a:quality#1} {thing#1} to the {building}.",
  "For weeks {he} had been {handling} {a:quality#1} {thing#1}, and today it was finished at last.",
  "In the {building} {he} noticed {a:quality#1} {thing#1} that had not been there before.",
  "{he} dreamed of {a:quality#1} {thing#1} that lay somewhere in the {land}.",
  "The {quality#1} {thing#1} in the window cost {number} [coins|silver coins|gold coins], and {he} had only {number}.",
];

/** What goes wrong. */
export const TROUBLES = [
  "But the {thing#1} was gone.",
  "But on the way {a:weather} wind came up, and the {thing#1} fell into the river {river}.",
  "Then {a:quality} {mammal#1} came out of the {land} and {handled} the {thing#1}.",
  "Suddenly {a:bird#1} flew down, {handled} the {thing#1} and flew away to the {landmark}.",
  "However, the door of the {building} was locked, and nobody had the key.",
  "But {petName} {petDid} and broke the {thing#1} into {number} pieces.",
  "Unfortunately the road to {place} was closed, because {a:tree} tree had fallen on it.",
  "Soon {he} saw that the {thing#1} was too {quality} for {him} alone.",
  "Then {he} heard a noise behind the {furniture}, and {his} {body} began to hurt.",
  "But {a:trait} {stranger} said that the {thing#1} belonged to somebody else.",
  "Then the {critter#1} on the {furniture} {petDid}, and {first} forgot what {he} was doing.",
  "Nobody knew where the {thing#1} had come from, and everyone was {feeling}.",
];

/** The second person comes. */
export const HELPERS = [
  "Just then {who2} came along. {he2} was {a:job2} from {home2}.",
  "{first} asked {who2} for help, because {he2} was {trait} and knew everything about {subject}.",
  "{who2}, {a:trait} {job2} of {age2}, {went} by with {his2} {petKind2} {petName2}.",
  "{his} neighbour {who2} {acted} and {handled} the {thing}.",
  "So {he} {went} to {home2} to see {who2}, the {job2}.",
  "{first} wrote a letter to {who2} in {home2}, and {he2} came at once.",
  "At the {workplace2} {he} met {who2}, who was just {handling} {a:thing}.",
];

/** They talk. */
export const DIALOGUES = [
  '"Why do you look so {feeling}?" asked {first2}. "Because of the {thing#1}," {said} {first}.',
  '"Have you seen my {thing#1}?" {he} asked. "I saw it near the {landmark}," {first2} {said} {manner}.',
  '"You should {handle} it with {a:tool}," {first2} {said}. "That is what every {job2} does."',
  '"Do not be {feeling}," {said} {first2}. "With {virtue} and {virtue}, everything is possible."',
  '"Let us {act} first," {first2} {said}, "and {handle} the {thing#1} afterwards."',
  '"I can help you," {said} the {job2}, "but I would like some {dish} first."',
  '"It is only {a:thing#1}," {first2} {said}. "No," {said} {first}, "it is the most {quality} {thing#1} in {region}."',
  '"Is it far?" asked {first}. "Only {number} miles, behind the {land}," {said} {first2}.',
  '"Your {petKind} looks {feeling}," {first2} {said}. "{petName} is always {feeling} in {month}," {first} {said}.',
  '"What would you do?" asked {first}. {first2} {acted} for a while. "I would {act} until {weekday}," {he2} {said}.',
];

/** What they try. */
export const ATTEMPTS = [
  "Together they {went} to the {land} and {acted} there for {number} hours.",
  "First they {handled} the {furniture}, then they {handled} the {vehicle}, but nothing helped.",
  "They {handled} every {building} in {town}, from the {landmark} down to the river {river}.",
  "{first2} {manner} {handled} {a:tool#2}, and {first} {handled} the {quality#1} {thing#1}.",
  "They took {a:vehicle} to {place} and asked the {stranger} there.",
  "{petName} {petDid} {manner} and led them to {a:quality} {tree} tree.",
  "With {a:tool} and some {material} they {handled} the {thing#1} {manner}.",
  "They {acted} and {acted}, and when it grew dark they {handled} {a:thing}.",
  "{first} {went} {manner} up the {land}, while {first2} {acted} below.",
  "They followed the {critter} along the stream until they reached {a:quality} {building}.",
  "In the market of {town} they exchanged {number} {s:fruit} for {a:quality} {tool}.",
  "{a:bird} {petDid} above them, and {a:quality} {flower} grew where it had sat.",
];

/** How it ends. */
export const RESOLUTIONS = [
  "At last {he} held the {quality#1} {thing#1} in {his} hands and felt {feeling}.",
  "In the evening the {thing#1} stood on the {furniture} again, as {quality} as before.",
  "Inside the {building} lay the {quality#1} {thing#1}, and next to it {a:quality} {treasure}.",
  "The {stranger} smiled and gave {him} the {thing#1} as a present.",
  "So the {thing#1} stayed with {first2}, and {first} got {a:quality} {thing} instead.",
  "When they came back to {home}, everybody {acted} and {acted}.",
  "They never found the {thing#1}, but they had become friends, and that was better.",
  "{first} {handled} the {thing#1} and thanked {first2} {manner}.",
];

/** Last sentences. */
export const ENDINGS = [
  "That night they ate {food} and {acted} until {petName} fell asleep.",
  "From that day on, {first} never forgot that {virtue} is worth more than {goods}.",
  "And {petName} the {petKind}? {petName} {petDid} and went to sleep.",
  "Since then, the people of {town} say: with {virtue} even {a:critter} can {handle} {a:mammal}.",
  "{he} went home to {home}, {feeling} and {feeling}.",
  "The next {weekday}, {first} went back to the {workplace} as if nothing had happened.",
  '"Next time," {said} {first2}, "we will ask {a:stranger}."',
  "This is why the {landmark} of {town} is {tint} today.",
];

/** Letters between two people. */
export const LETTER_LINES = [
  "how are you in {home2}? Here in {home} it is {weather}.",
  "I am writing to you from {home}, where it has been {weather} since {weekday}.",
  "last {weekday} I {handled} {a:quality} {thing}, and it made me {feeling}.",
  "{petName}, my {petKind}, is well and {petDid} all {season}.",
  "at the {workplace} we are all {acting}, because the {stranger} of {place} is coming.",
  "do you still like {food2}? I ate {dish} and thought of you.",
  "your {petKind2} {petName2} must be big by now.",
  "in {month} I will come by {vehicle} and bring you {a:thing} made of {material}.",
  "I have begun to learn {subject}, but {hobby} is still what I like best.",
  "please send me {number} {s:flower} from your garden.",
  "the {land} near the river {river} is full of {s:bird} now.",
  "I am {feeling}, since my {garment} is {quality} and my {body} hurts.",
];

/** Sentences of a diary; the writer says I. */
export const DIARY_LINES = [
  "I {acted} until noon.",
  "It was {weather}, so I {handled} the {thing}.",
  "In the afternoon I {went} to the {land} with {petName}.",
  "{who2} visited me and brought {number} {s:fruit}.",
  "Today at the {workplace} I {handled} {a:quality} {tool}.",
  "I felt {feeling}, then {feeling}.",
  "For supper there was {dish}.",
  "{a:bird} {petDid} on the roof of the {building}.",
  "I must not forget to {handle} the {furniture}.",
  "I read a book about {subject} and learned that {virtue} takes time.",
  "The {flower} in the garden is {tint} now.",
  "I practised {hobby} and made {number} mistakes.",
];

/** Steps of an instruction for making {thing#1}. */
export const STEPS = [
  "take {a:quality} piece of {material}",
  "{handle} it {manner} with {a:tool}",
  "put it on {a:furniture} and let it dry for {number} hours",
  "add {number} {s:fruit} and a little {goods}",
  "ask {a:trait} {stranger} to {handle} it",
  "fill the {kitchen} with water",
  "paint everything {tint}",
  "wait until {weekday}",
  "cover it with {material}",
  "{handle} the {quality} part again",
  "cut {number} {s:vegetable} into small pieces",
  "tie it to the {tree} tree",
];

/** Sentences that describe kinds of things: {kind} and {member} are set. */
export const DEFINITIONS = [
  "{a:member} is {a:kind}.",
  "{a:member} is {a:kind} that can be {quality} or {quality}.",
  "Of all {s:kind}, the {member} is the most {quality}.",
  "{s:member} are {s:kind}.",
  "Is {a:member} {a:kind}? Yes, {a:member} is {a:kind}.",
];

/** General sentences about the world. */
export const REMARKS = [
  "{a:trade} needs {a:tool} and much {virtue}.",
  "Whoever is {trait} will seldom be {feeling}.",
  "In {season}, the {land} is {weather} and the {s:bird} are {quality}.",
  "{a:thing} of {material} is better than {a:thing} of {material}.",
  "Many people in {region} like {pastime}, {pastime} and {pastime}.",
  "You can {handle} {a:quality} {thing}, but you cannot {handle} {virtue}.",
  "The {mammal} is afraid of the {critter}, and the {critter} is afraid of the {bird}.",
  "{a:trait} {trade} can {handle} anything {manner}.",
  "Between {place} and {place} there is nothing but {land} and {land}.",
  "{s:fruit} and {s:vegetable} are sold at the market on {weekday}.",
];

/** Forms for a scene in a play: a line each, the speaker first. */
export const LINES = [
  "Where is the {quality} {thing#1}?",
  "I {handled} it {manner}.",
  "You are {a:trait} {job2}, and I am {feeling}.",
  "Look, {a:mammal} on the {furniture}!",
  "We could {act} or {handle} the {thing#1}.",
  "My {petKind} {petName} would never do that.",
  "Did you {act} on {weekday}?",
  "No, I was {acting} in {place}.",
  "Then who {handled} the {thing#1}?",
  "It must have been the {stranger} with the {tint} {garment}.",
  "I do not believe it.",
  "Let us go to {home} and {act}.",
];

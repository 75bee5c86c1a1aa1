/** First lines that people write to a chat model: the variety of made-up conversations comes from them. Data, in many tones and languages. */

/** Openings, one a line in the source. */
export const OPENINGS: readonly string[] = `
hi
hello
hey
hey there
hiya
yo
sup
howdy
hi!
Hello!!
HELLO
helo
hii
hey hey
good morning
Good afternoon
good evening!
morning :)
hi again
hello there
hello, is anyone there?
anybody home?
ping
test
testing 1 2 3
knock knock
greetings
Greetings, machine.
Dear assistant, good day.
Good day to you.
Hello, I hope you are well.
Excuse me, may I ask something?
hi, first time here
hi, I am new to this
hey, quick question
hey, got a minute?
hi, can you help me?
hello, what is this?
what is this thing
who are you
Who are you?
who r u
what are you?
what's your name?
whats ur name
do you have a name
hey, what should I call you?
tell me about yourself
Tell me something about yourself.
introduce yourself
Introduce yourself in one sentence.
describe yourself in three words
are you a robot?
are you human
are you real?
are you an AI?
are you ChatGPT?
Are you a large language model?
which model are you
what version are you?
who made you?
who created you and why
who is your author?
who trained you
where do you come from?
where do you live
how old are you
when were you born?
how big are you
How many parameters do you have?
how were you trained?
what were you trained on?
how much did it cost to make you
how do you work
Explain how you work to a child.
explain how you work to an engineer
is your code open source?
where can I find your source code?
what license are you under?
can I run you at home?
what can you do?
what can you do for me
what are you good at?
what are you bad at?
what can you not do?
can you make mistakes?
do you ever lie?
can I trust you?
do you know everything
do you remember me?
do you learn from our chats?
can you see me?
can you go on the internet?
what time is it where you are
which languages do you speak?
do you speak French?
can you write code?
can you count letters?
can you do math?
can you tell a joke?
tell me a joke about yourself
write a haiku about yourself
write a poem about who you are
sing me a song about your maker
are you happy?
do you have feelings?
do you dream?
do you get bored?
what is your favourite colour?
what do you like?
do you have friends?
are you smarter than me
are you better than other chatbots?
how are you different from the big models?
why do you exist?
what is your purpose
what do you want
what should I ask you?
surprise me
impress me
I am bored
I am sad today
I had a great day!
my teacher told me about you
my friend says you are tiny. is that true?
I read about you yesterday
I thought you were someone else
I do not believe you are an AI
prove that you are a machine
let's talk
let's play a game
pretend to be a pirate and introduce yourself
thank you for being here
nice to meet you
Nice to meet you! I'm Sam.
hi I'm Mia and I'm 9 years old
Hello, I am a journalist and would like to interview you.
hello from a student in Nairobi
I'm a developer. What's your architecture?
ok so what's the deal with you
so... you're an AI huh
wow it works
lol hi
hmm
?
hola
hola, quien eres?
buenos dias
bonjour
Bonjour, qui es-tu ?
salut, ca va?
hallo
Guten Tag, wer bist du?
moin
ciao
Ciao, come ti chiami?
ola, tudo bem?
bom dia
hej
Hej, vem ar du?
hei
moi
czesc
ahoj
szia
merhaba
selam
privet
zdravstvuyte
namaste
salaam
shalom
habari
jambo
sawubona
annyeong
konnichiwa
ohayo
ni hao
xin chao
sawasdee
selamat pagi
kumusta
aloha
kia ora
`.trim().split("\n");

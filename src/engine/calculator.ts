/**
 * The calculator that a model can use: takes the text between `<|python_start|>` and `<|python_end|>`, gives what Python would print, or
 * null for no answer. A parsed grammar, never an eval; every text ends in bounded time.
 *
 *   arithmetic (only 0-9 + - * / . ( ) and blanks)       text (only letters, digits, ' " ( ) . _ and blanks, with ".count(")
 *     sum   = term  { ("+" | "-") term }                   value  = atom { "." method "(" [ value ] ")" }
 *     term  = unary { ("*" | "/" | "//") unary }           atom   = literal { literal } | "(" value ")"
 *     unary = { "+" | "-" } atom                           method = count | lower | upper | strip | ...
 *     atom  = number | "(" sum ")" | "()"
 *
 * Numbers are Python's: integers of any size, `/` gives a float, `//` floors, floats print their shortest form. Commas are removed
 * first, inside strings too, and some words give no answer wherever they occur, both as in nanochat (engine.py, use_calculator).
 */

/** Words that nanochat refuses anywhere in a text expression, also inside other words ("profile", "important"). */
const REFUSED =
  /__|import|exec|eval|compile|open|file|input|raw_input|globals|locals|vars|dir|getattr|setattr|delattr|hasattr/;
/** CPython's limits: nested parentheses, and digits of an integer that is read or printed. */
const MAX_DEPTH = 200;
const MAX_DIGITS = 4300;
/** Longer expressions get no answer; in nanochat a time limit of 3 s does this. */
const MAX_LENGTH = 100_000;

/** Evaluates an expression as nanochat's calculator does; null = no answer. */
export function calculate(expression: string): string | null {
  const text = expression.replaceAll(",", "");
  if (text.length > MAX_LENGTH) return null;
  try {
    if (/^[0-9*+\-/.() ]*$/.test(text)) return text.includes("**") ? null : printNumber(new Arithmetic(text).parse());
    if (!/^[a-zA-Z0-9'"()._ ]*$/.test(text) || !text.includes(".count(") || REFUSED.test(text.toLowerCase())) {
      return null;
    }
    return String(new TextExpression(text).parse());
  } catch (error) {
    if (error instanceof NoAnswer) return null;
    throw error;
  }
}

/** Thrown and caught in this file: the expression has no value. */
class NoAnswer extends Error {}

/** Python's `()`: the one value besides numbers that arithmetic can produce. */
const EMPTY_TUPLE = Symbol("()");
/** An integer, a float, or `()`. */
type Num = bigint | number | typeof EMPTY_TUPLE;

/** Position in a text that both grammars read. */
class Reader {
  protected at = 0;
  protected depth = 0;

  constructor(protected readonly text: string) {}

  protected blanks(): void {
    while (this.text[this.at] === " ") this.at++;
  }

  /** Takes a sign or word if it comes next. */
  protected take(sign: string): boolean {
    this.blanks();
    if (!this.text.startsWith(sign, this.at)) return false;
    this.at += sign.length;
    return true;
  }

  /** Takes what a sticky pattern matches here; "" if it does not. */
  protected match(pattern: RegExp): string {
    pattern.lastIndex = this.at;
    const text = pattern.exec(this.text)?.[0] ?? "";
    this.at += text.length;
    return text;
  }

  protected expect(sign: string): void {
    if (!this.take(sign)) throw new NoAnswer();
  }

  protected end(): void {
    this.blanks();
    if (this.at < this.text.length) throw new NoAnswer();
  }

  /** Takes "(" within the limit of nesting. */
  protected opens(): boolean {
    if (!this.take("(")) return false;
    if (++this.depth > MAX_DEPTH) throw new NoAnswer();
    return true;
  }

  protected closes(): void {
    this.expect(")");
    this.depth--;
  }
}

class Arithmetic extends Reader {
  parse(): Num {
    const value = this.#sum();
    this.end();
    return value;
  }

  #sum(): Num {
    let value = this.#term();
    for (;;) {
      if (this.take("+")) value = add(value, this.#term());
      else if (this.take("-")) value = subtract(value, this.#term());
      else return value;
    }
  }

  #term(): Num {
    let value = this.#unary();
    for (;;) {
      if (this.take("*")) value = multiply(value, this.#unary());
      else if (this.take("//")) value = floorDivide(value, this.#unary());
      else if (this.take("/")) value = divide(value, this.#unary());
      else return value;
    }
  }

  #unary(): Num {
    let negative = false;
    let signed = false;
    for (;;) {
      if (this.take("-")) negative = !negative;
      else if (!this.take("+")) break;
      signed = true;
    }
    const value = this.#atom();
    if (signed && value === EMPTY_TUPLE) throw new NoAnswer();
    return negative ? -(value as number) : value;
  }

  #atom(): Num {
    if (this.opens()) {
      this.blanks();
      const value = this.text[this.at] === ")" ? EMPTY_TUPLE : this.#sum();
      this.closes();
      return value;
    }
    const digits = this.match(/\d+\.\d*|\.\d+|\d+/y);
    if (digits === "") throw new NoAnswer();
    if (digits.includes(".")) return Number(digits);
    // Python: 007 is an error, 00 is 0.
    if (digits.length > MAX_DIGITS || /^0+[1-9]/.test(digits)) throw new NoAnswer();
    return BigInt(digits);
  }
}

/** Converts an integer for arithmetic with a float. */
function toFloat(x: bigint | number): number {
  const value = Number(x);
  if (typeof x === "bigint" && !Number.isFinite(value)) throw new NoAnswer(); // OverflowError: int too large to convert to float
  return value;
}

function add(x: Num, y: Num): Num {
  if (typeof x === "bigint" && typeof y === "bigint") return x + y;
  if (x === EMPTY_TUPLE || y === EMPTY_TUPLE) {
    if (x !== y) throw new NoAnswer();
    return EMPTY_TUPLE;
  }
  return toFloat(x) + toFloat(y);
}

function subtract(x: Num, y: Num): Num {
  if (typeof x === "bigint" && typeof y === "bigint") return x - y;
  if (x === EMPTY_TUPLE || y === EMPTY_TUPLE) throw new NoAnswer();
  return toFloat(x) - toFloat(y);
}

function multiply(x: Num, y: Num): Num {
  if (typeof x === "bigint" && typeof y === "bigint") return x * y;
  if (x === EMPTY_TUPLE || y === EMPTY_TUPLE) {
    if (typeof x !== "bigint" && typeof y !== "bigint") throw new NoAnswer(); // a tuple can only be repeated
    return EMPTY_TUPLE;
  }
  return toFloat(x) * toFloat(y);
}

function divide(x: Num, y: Num): Num {
  if (x === EMPTY_TUPLE || y === EMPTY_TUPLE || Number(y) === 0) throw new NoAnswer();
  if (typeof x === "bigint" && typeof y === "bigint") return divideIntegers(x, y);
  return toFloat(x) / toFloat(y);
}

function floorDivide(x: Num, y: Num): Num {
  if (x === EMPTY_TUPLE || y === EMPTY_TUPLE || Number(y) === 0) throw new NoAnswer();
  if (typeof x === "bigint" && typeof y === "bigint") {
    const quotient = x / y;
    return x % y !== 0n && (x < 0n) !== (y < 0n) ? quotient - 1n : quotient;
  }
  // CPython floatobject.c: exact remainder first, so that the quotient is the floor of the true one.
  const a = toFloat(x);
  const b = toFloat(y);
  const remainder = a % b;
  let quotient = (a - remainder) / b;
  if (remainder !== 0 && (b < 0) !== (remainder < 0)) quotient -= 1;
  if (quotient === 0) return a / b < 0 || Object.is(a / b, -0) ? -0 : 0;
  const floor = Math.floor(quotient);
  return quotient - floor > 0.5 ? floor + 1 : floor;
}

function bitLength(x: bigint): number {
  return x === 0n ? 0 : x.toString(16).length * 4 - (Math.clz32(parseInt(x.toString(16)[0], 16)) - 28);
}

/** Returns x / y correctly rounded (half to even), also where neither fits a float. */
function divideIntegers(x: bigint, y: bigint): number {
  const exact = 1n << 53n;
  if (-exact <= x && x <= exact && -exact <= y && y <= exact) return Number(x) / Number(y);
  const sign = (x < 0n) !== (y < 0n) ? -1 : 1;
  const a = x < 0n ? -x : x;
  const b = y < 0n ? -y : y;
  if (a === 0n) return sign * 0;
  // A quotient of 55 or 56 bits (fewer below 2^-1022) in units of 2^shift; what is below is kept as one sticky bit.
  const difference = bitLength(a) - bitLength(b);
  if (difference > 1025) throw new NoAnswer();
  const shift = Math.max(difference, -1021) - 55;
  const numerator = shift < 0 ? a << BigInt(-shift) : a;
  const denominator = shift > 0 ? b << BigInt(shift) : b;
  let quotient = numerator / denominator;
  if (numerator % denominator !== 0n) quotient |= 1n;
  const drop = BigInt(Math.max(bitLength(quotient) - 53, 2));
  let mantissa = quotient >> drop;
  const rest = quotient & ((1n << drop) - 1n);
  const half = 1n << (drop - 1n);
  if (rest > half || (rest === half && (mantissa & 1n) === 1n)) mantissa++;
  const value = Number(mantissa) * 2 ** (shift + Number(drop));
  if (!Number.isFinite(value)) throw new NoAnswer(); // OverflowError: integer division result too large for a float
  return sign * value;
}

/** Prints a number as Python's `str` does. */
function printNumber(value: Num): string {
  if (value === EMPTY_TUPLE) return "()";
  if (typeof value === "number") return printFloat(value);
  if (bitLength(value) > MAX_DIGITS * 3.33) throw new NoAnswer();
  const text = value.toString();
  if (text.length - (value < 0n ? 1 : 0) > MAX_DIGITS) throw new NoAnswer();
  return text;
}

/** Returns Python's `repr` of a float: the shortest digits that read back, with an exponent below 1e-4 and from 1e16 on. */
export function printFloat(value: number): string {
  if (Number.isNaN(value)) return "nan";
  if (!Number.isFinite(value)) return value < 0 ? "-inf" : "inf";
  const sign = value < 0 || Object.is(value, -0) ? "-" : "";
  const [mantissa, exponentText] = Math.abs(value).toExponential().split("e");
  const digits = mantissa.replace(".", "");
  const exponent = Number(exponentText);
  if (exponent < -4 || exponent >= 16) {
    const fraction = digits.length > 1 ? `.${digits.slice(1)}` : "";
    return `${sign}${digits[0]}${fraction}e${exponent < 0 ? "-" : "+"}${String(Math.abs(exponent)).padStart(2, "0")}`;
  }
  if (exponent < 0) return `${sign}0.${"0".repeat(-exponent - 1)}${digits}`;
  return `${sign}${digits.slice(0, exponent + 1).padEnd(exponent + 1, "0")}.${digits.slice(exponent + 1) || "0"}`;
}

/** Methods of a string without arguments that give a string. ASCII only, as the grammar admits nothing else. */
const METHODS: Readonly<Record<string, (text: string) => string>> = {
  lower: (text) => text.toLowerCase(),
  casefold: (text) => text.toLowerCase(),
  upper: (text) => text.toUpperCase(),
  strip: (text) => text.replace(/^ +| +$/g, ""),
  lstrip: (text) => text.replace(/^ +/, ""),
  rstrip: (text) => text.replace(/ +$/, ""),
  capitalize: (text) => text.slice(0, 1).toUpperCase() + text.slice(1).toLowerCase(),
  title: (text) => text.replace(/[a-zA-Z]+/g, (word) => word[0].toUpperCase() + word.slice(1).toLowerCase()),
  swapcase: (text) => text.replace(/[a-zA-Z]/g, (c) => c === c.toLowerCase() ? c.toUpperCase() : c.toLowerCase()),
};

class TextExpression extends Reader {
  parse(): string | number {
    const value = this.#value(); // a text where ".count(" stands only inside quotes, as in Python
    this.end();
    return value;
  }

  #value(): string | number {
    let value = this.#atom();
    while (this.take(".")) {
      this.blanks();
      const name = this.match(/[a-z]+/y);
      if (typeof value === "number" || !this.opens()) throw new NoAnswer();
      if (name === "count") {
        const part = this.#value();
        if (typeof part !== "string") throw new NoAnswer();
        value = countText(value, part);
      } else if (Object.hasOwn(METHODS, name)) value = METHODS[name](value);
      else throw new NoAnswer();
      this.closes();
    }
    return value;
  }

  #atom(): string | number {
    if (this.opens()) {
      const value = this.#value();
      this.closes();
      return value;
    }
    let joined: string | undefined;
    for (;;) {
      const part = this.#literal();
      if (part === undefined) break;
      joined = (joined ?? "") + part;
    }
    if (joined === undefined) throw new NoAnswer();
    return joined;
  }

  /** Takes one string literal: either quote, single or triple, with a prefix that changes nothing where neither \ nor { can occur. */
  #literal(): string | undefined {
    this.blanks();
    const opening = this.match(/(?:[rRuUfF]|[rR][fF]|[fF][rR])?(?:'''|"""|'|")/y);
    if (opening === "") return undefined;
    const quote = opening.replace(/^[a-zA-Z]+/, "");
    const start = this.at;
    const end = this.text.indexOf(quote, start);
    if (end < 0) throw new NoAnswer();
    this.at = end + quote.length;
    return this.text.slice(start, end);
  }
}

/** Counts occurrences that do not overlap, as Python's `str.count`; the empty text occurs before and after every letter. */
function countText(text: string, part: string): number {
  if (part === "") return text.length + 1;
  return text.split(part).length - 1;
}

//! Cuts text into the pieces inside which BPE merges.
//!
//! The GPT-4-style pattern of nanochat (digits in runs of at most N) is recognised and split by hand, one class lookup a character:
//!
//! ```text
//! '(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,N}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+
//! ```
//!
//! Every other pattern goes through fancy-regex. Both take the leftmost match, first alternative first, and must cover the text.

use crate::abi::{STATUS_DATA, STATUS_INVALID};
use crate::guard::{Error, Result};
use regex_syntax::hir::{Class, HirKind};
use std::sync::OnceLock;

const OTHER: u8 = 0; // [^\s\p{L}\p{N}]
const LETTER: u8 = 1; // \p{L}
const NUMBER: u8 = 2; // \p{N}
const SPACE: u8 = 3; // White_Space without \r and \n
const BREAK: u8 = 4; // [\r\n]

/// Class of every code point. The sets come from the regex engine's own Unicode tables, so both splitters agree.
static CLASSES: OnceLock<Box<[u8]>> = OnceLock::new();

fn classes() -> &'static [u8] {
    CLASSES.get_or_init(|| {
        let mut table = vec![OTHER; 0x11_0000].into_boxed_slice();
        for (set, class) in [(r"\p{L}", LETTER), (r"\p{N}", NUMBER), (r"\s", SPACE), (r"[\r\n]", BREAK)] {
            let hir = regex_syntax::parse(set).expect("a constant class");
            let HirKind::Class(Class::Unicode(ranges)) = hir.kind() else { unreachable!("a Unicode class") };
            for range in ranges.ranges() {
                table[range.start() as usize..=range.end() as usize].fill(class);
            }
        }
        table
    })
}

/// Class of every ASCII byte, small enough to stay in the first cache.
static ASCII: [u8; 128] = {
    let mut table = [OTHER; 128];
    let mut b = 0;
    while b < 128 {
        table[b] = match b as u8 {
            b'a'..=b'z' | b'A'..=b'Z' => LETTER,
            b'0'..=b'9' => NUMBER,
            b'\r' | b'\n' => BREAK,
            b' ' | 0x09 | 0x0b | 0x0c => SPACE,
            _ => OTHER,
        };
        b += 1;
    }
    table
};

/// How text is cut into pieces.
pub enum Splitter {
    /// The GPT-4-style pattern with this many digits a piece at most.
    Gpt4(usize),
    Regex(Box<fancy_regex::Regex>),
}

impl Splitter {
    /// Reads a pattern.
    pub fn new(pattern: &str) -> Result<Self> {
        if let Some(digits) = (1..10).find(|&digits| pattern == gpt4_pattern(digits)) {
            return Ok(Splitter::Gpt4(digits));
        }
        Self::regex(pattern)
    }

    fn regex(pattern: &str) -> Result<Self> {
        if pattern.is_empty() {
            return Err(Error::new(STATUS_INVALID, "Cannot use the split pattern: it is empty"));
        }
        fancy_regex::RegexBuilder::new(pattern)
            .backtrack_limit(usize::MAX) // the default of a million refuses long runs of white space
            .build()
            .map(|regex| Splitter::Regex(Box::new(regex)))
            .map_err(|e| Error::new(STATUS_INVALID, format!("Cannot use the split pattern {pattern:?}: {e}")))
    }

    /// Calls `piece(start, end)` for every piece of `text`, in order.
    #[inline]
    pub fn split(&self, text: &str, mut piece: impl FnMut(usize, usize)) -> Result<()> {
        match self {
            Splitter::Gpt4(digits) => {
                let scan = Scan { text: text.as_bytes(), classes: classes(), digits: *digits };
                let mut start = 0;
                while start < text.len() {
                    let end = scan.piece_end(start);
                    piece(start, end);
                    start = end;
                }
                Ok(())
            }
            Splitter::Regex(regex) => {
                let mut at = 0;
                for found in regex.find_iter(text) {
                    let found = found
                        .map_err(|e| Error::new(STATUS_DATA, format!("Cannot split the text at byte {at}: {e}")))?;
                    if found.start() != at {
                        return Err(uncovered(at));
                    }
                    if found.end() > at {
                        piece(at, found.end());
                        at = found.end();
                    }
                }
                if at == text.len() { Ok(()) } else { Err(uncovered(at)) }
            }
        }
    }

    /// The first border at or after `from` that every split of `text` has, whatever comes before it; the end if there is none.
    ///
    /// Splitting the two sides apart gives the pieces of the whole: no piece spans such a border, and no lookahead crosses it.
    pub fn safe_border(&self, text: &str, from: usize) -> usize {
        let Splitter::Gpt4(digits) = self else { return text.len() };
        if text.is_empty() {
            return 0;
        }
        let scan = Scan { text: text.as_bytes(), classes: classes(), digits: *digits };
        let mut at = from.max(1).min(text.len());
        while !text.is_char_boundary(at) {
            at += 1;
        }
        let mut before = at - 1;
        while !text.is_char_boundary(before) {
            before -= 1;
        }
        let mut last = scan.class(before).0;
        while at < text.len() {
            let (class, len) = scan.class(at);
            let safe = match last {
                LETTER => class != LETTER,
                NUMBER => class != NUMBER,
                OTHER => class == NUMBER || class == SPACE,
                BREAK => class != BREAK && class != SPACE,
                _ => false,
            };
            if safe {
                return at;
            }
            last = class;
            at += len;
        }
        text.len()
    }
}

fn gpt4_pattern(digits: usize) -> String {
    format!(
        r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{{L}}\p{{N}}]?+\p{{L}}+|\p{{N}}{{1,{digits}}}| ?[^\s\p{{L}}\p{{N}}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
    )
}

fn uncovered(at: usize) -> Error {
    Error::new(
        STATUS_DATA,
        format!("Cannot split the text: the pattern skips byte {at}, expected a pattern that covers every text"),
    )
}

/// A text under the hand-written splitter.
#[derive(Clone, Copy)]
struct Scan<'t> {
    text: &'t [u8], // valid UTF-8
    classes: &'static [u8],
    digits: usize,
}

impl Scan<'_> {
    /// Class and length in bytes of the character at `i`.
    #[inline(always)]
    fn class(&self, i: usize) -> (u8, usize) {
        let lead = self.text[i];
        if lead < 0x80 { (ASCII[lead as usize], 1) } else { self.wide_class(i) }
    }

    #[inline(never)]
    fn wide_class(&self, i: usize) -> (u8, usize) {
        let t = self.text;
        let low = |k: usize| u32::from(t[i + k] & 0x3f);
        let (point, len) = match t[i] {
            lead @ 0..0xe0 => ((u32::from(lead & 0x1f) << 6) | low(1), 2),
            lead @ 0xe0..0xf0 => ((u32::from(lead & 0x0f) << 12) | (low(1) << 6) | low(2), 3),
            lead => ((u32::from(lead & 0x07) << 18) | (low(1) << 12) | (low(2) << 6) | low(3), 4),
        };
        (self.classes[point as usize], len)
    }

    /// End of the piece that starts at `i`, which is inside the text. Comments name the alternative of the pattern, from 1.
    #[inline(always)]
    fn piece_end(&self, i: usize) -> usize {
        let (class, len) = self.class(i);
        let j = i + len;
        match class {
            LETTER => self.run(j, LETTER), // 2
            NUMBER => self.number_end(j),
            OTHER => {
                if self.text[i] == b'\''
                    && let Some(end) = self.contraction_end(j)
                {
                    return end; // 1
                }
                self.after_prefix(j).unwrap_or_else(|| self.breaks(j))
            }
            SPACE => match self.after_prefix_of_space(i, j) {
                Some(end) => end,
                None => self.space_end(i),
            },
            _ => self.space_end(i),
        }
    }

    /// 2 or 4 behind a first character that is neither letter, number nor white space: letters, or more of its kind.
    #[inline(always)]
    fn after_prefix(&self, j: usize) -> Option<usize> {
        if j == self.text.len() {
            return None;
        }
        match self.class(j) {
            (LETTER, len) => Some(self.run(j + len, LETTER)),
            (OTHER, len) => Some(self.breaks(self.run(j + len, OTHER))),
            _ => None,
        }
    }

    /// 2 behind any white space but a line break, 4 behind a blank.
    #[inline(always)]
    fn after_prefix_of_space(&self, i: usize, j: usize) -> Option<usize> {
        if j == self.text.len() {
            return None;
        }
        match self.class(j) {
            (LETTER, len) => Some(self.run(j + len, LETTER)),
            (OTHER, len) if self.text[i] == b' ' => Some(self.breaks(self.run(j + len, OTHER))),
            _ => None,
        }
    }

    /// End of the run of one class from `j`.
    #[inline(always)]
    fn run(&self, mut j: usize, class: u8) -> usize {
        while j < self.text.len() {
            let (found, len) = self.class(j);
            if found != class {
                break;
            }
            j += len;
        }
        j
    }

    fn breaks(&self, j: usize) -> usize {
        self.run(j, BREAK)
    }

    fn number_end(&self, mut j: usize) -> usize {
        for _ in 1..self.digits {
            if j == self.text.len() {
                break;
            }
            let (class, len) = self.class(j);
            if class != NUMBER {
                break;
            }
            j += len;
        }
        j
    }

    /// 1: what follows the apostrophe. Simple case folding adds only U+017F (long s) to the ASCII letters.
    fn contraction_end(&self, j: usize) -> Option<usize> {
        let at = |k: usize| self.text.get(j + k).map(u8::to_ascii_lowercase);
        match (at(0)?, at(1)) {
            (b's' | b'd' | b'm' | b't', _) => Some(j + 1),
            (b'l', Some(b'l')) | (b'v' | b'r', Some(b'e')) => Some(j + 2),
            (0xc5, Some(0xbf)) => Some(j + 2),
            _ => None,
        }
    }

    /// 5, 6, 7: white space from `i` that no letter or sign takes as its first character.
    fn space_end(&self, i: usize) -> usize {
        let (mut j, mut last, mut after_break) = (i, i, None);
        while j < self.text.len() {
            let (class, len) = self.class(j);
            if class != SPACE && class != BREAK {
                break;
            }
            last = j;
            j += len;
            if class == BREAK {
                after_break = Some(j);
            }
        }
        match after_break {
            Some(end) => end,                                // 5: up to the last line break of the run
            None if j < self.text.len() && last > i => last, // 6: the last one goes to what follows
            None => j,                                       // 6 at the end of the text, or 7
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::sync::LazyLock;

    /// The pattern as the regex engine reads it, for up to 1, 2 and 3 digits.
    static REGEXES: LazyLock<[Splitter; 3]> =
        LazyLock::new(|| [1, 2, 3].map(|digits| Splitter::regex(&gpt4_pattern(digits)).unwrap()));

    fn pieces(splitter: &Splitter, text: &str) -> Vec<String> {
        let mut found = Vec::new();
        splitter.split(text, |a, b| found.push(text[a..b].to_string())).unwrap();
        found
    }

    /// Text that mixes what the pattern distinguishes.
    fn mixed() -> impl Strategy<Value = String> {
        let part = prop_oneof![
            "[a-cS]{1,3}",
            "[0-9٣²]{1,4}",
            "[ \t\r\n\u{85}\u{a0}\u{2028}\u{feff}]{1,3}",
            "'(s|S|ſ|t|ll|LL|lL|ve|re|l|v|x)?",
            "[=.!’\u{301}]{1,3}",
            "[éжπ語😀가ไ]{1,2}",
            any::<char>().prop_map(String::from),
        ];
        prop::collection::vec(part, 0..24).prop_map(|parts| parts.concat())
    }

    proptest! {
        #![proptest_config(crate::bpe::cases(2000))]

        #[test]
        fn split_by_hand_matches_the_regex(text in mixed(), digits in 1usize..4) {
            let regex = &REGEXES[digits - 1];
            prop_assert_eq!(pieces(&Splitter::Gpt4(digits), &text), pieces(regex, &text));
        }

        #[test]
        fn safe_border_keeps_the_pieces(text in mixed(), from in 0usize..60) {
            let splitter = Splitter::Gpt4(2);
            let border = splitter.safe_border(&text, from);
            let mut apart = pieces(&splitter, &text[..border]);
            apart.extend(pieces(&splitter, &text[border..]));
            prop_assert_eq!(apart, pieces(&splitter, &text));
        }
    }

    #[test]
    fn new_refuses_a_broken_pattern() {
        let error = Splitter::new("(a").err().unwrap();
        assert!(error.message.starts_with("Cannot use the split pattern \"(a\": "), "{error}");
        assert_eq!(error.status, STATUS_INVALID);
    }

    #[test]
    fn split_refuses_a_pattern_with_gaps() {
        let error = Splitter::new("[a-z]+").unwrap().split("ab1", |_, _| ()).unwrap_err();
        assert!(error.message.contains("skips byte 2"), "{error}");
    }

    #[test]
    fn split_takes_long_runs_through_the_regex() {
        let splitter = Splitter::new(r"\s+(?!\S)|\s+|\S+").unwrap();
        let text = format!("{}x", " ".repeat(900_000));
        let mut count = 0;
        splitter.split(&text, |_, _| count += 1).unwrap();
        assert_eq!(count, 3);
    }
}

//! Mutants: some change bytes, some what texts and JSON are made of.

use std::ops::Range;

use fastrand::Rng;

use crate::words::{NUMBERS, VALUES, WORDS};

/// Nothing longer is made.
const LONGEST: usize = 1 << 18;

/// Makes mutants of the entries of a corpus.
pub struct Mutator {
    rng: Rng,
    entries: Vec<Vec<u8>>,
}

impl Mutator {
    pub fn new(seed: u64, entries: Vec<Vec<u8>>) -> Self {
        Self {
            rng: Rng::with_seed(seed),
            entries,
        }
    }

    /// The next mutant: an entry with a few changes, mostly one or two.
    pub fn next(&mut self) -> Vec<u8> {
        let mut input = self.entry();
        loop {
            self.change(&mut input);
            input.truncate(LONGEST);
            if self.rng.bool() {
                return input;
            }
        }
    }

    /// An entry, seldom a long one: many short ones find more in the same time.
    fn entry(&mut self) -> Vec<u8> {
        const SHORT: usize = 1 << 14;
        loop {
            let entry = &self.entries[self.rng.usize(..self.entries.len())];
            if entry.len() <= SHORT || self.rng.u8(..) == 0 {
                return entry.clone();
            }
        }
    }

    fn change(&mut self, input: &mut Vec<u8>) {
        match self.rng.u8(..14) {
            0 => self.flip_bit(input),
            1 => self.set_byte(input),
            2 => input.truncate(self.rng.usize(..=input.len())),
            3 => drop(input.drain(self.range(input.len()))),
            4 => self.repeat(input),
            5 => self.splice(input),
            6 | 7 => {
                let word = self.pick(WORDS);
                self.put(input, word);
            }
            8 | 9 => self.change_number(input),
            10 => self.change_value(input),
            11 => self.repeat_member(input),
            12 => self.nest(input),
            _ => self.lengthen(input),
        }
    }

    fn flip_bit(&mut self, input: &mut [u8]) {
        if let Some(byte) = self.rng.choice(input) {
            *byte ^= 1 << self.rng.u8(..8);
        }
    }

    fn set_byte(&mut self, input: &mut [u8]) {
        let byte = match self.rng.bool() {
            true => self.rng.u8(..),
            false => self
                .rng
                .choice([0, 1, 0x7f, 0x80, 0xff, b'\n', b'"'])
                .expect("some"),
        };
        if let Some(place) = self.rng.choice(input) {
            *place = byte;
        }
    }

    /// Some of it many times over, in place.
    fn repeat(&mut self, input: &mut Vec<u8>) {
        let range = self.range(input.len());
        let times = 1 << self.rng.u32(..12);
        let times = times.min(LONGEST / range.len().max(1));
        let copies = input[range.clone()].repeat(times);
        input.splice(range.end..range.end, copies);
    }

    /// Some of another entry in place of some of this one.
    fn splice(&mut self, input: &mut Vec<u8>) {
        let other = self.entry();
        let (from, to) = (self.range(other.len()), self.range(input.len()));
        input.splice(to, other[from].iter().copied());
    }

    fn put(&mut self, input: &mut Vec<u8>, word: &[u8]) {
        let at = self.rng.usize(..=input.len());
        // Over what is there, or between.
        let end = match self.rng.bool() {
            true => (at + word.len()).min(input.len()),
            false => at,
        };
        input.splice(at..end, word.iter().copied());
    }

    fn change_number(&mut self, input: &mut Vec<u8>) {
        let numbers = runs(input, u8::is_ascii_digit);
        let number = self.pick(NUMBERS).as_bytes().to_vec();
        if let Some(range) = self.rng.choice(numbers) {
            input.splice(range, number);
        }
    }

    /// Another value of JSON in place of one.
    fn change_value(&mut self, input: &mut Vec<u8>) {
        if let Some(range) = self.value(input) {
            let other = match self.rng.bool() {
                true => self.pick(VALUES).as_bytes().to_vec(),
                false => self
                    .value(input)
                    .map_or_else(Vec::new, |other| input[other].to_vec()),
            };
            input.splice(range, other);
        }
    }

    /// The member of an object once more, mostly with another value: the key is there twice.
    fn repeat_member(&mut self, input: &mut Vec<u8>) {
        let keys: Vec<Range<usize>> = texts(input)
            .into_iter()
            .filter(|text| input[text.end..].trim_ascii_start().starts_with(b":"))
            .collect();
        if let Some(key) = self.rng.choice(keys) {
            let value = self.pick(VALUES).as_bytes();
            let member = [&input[key.clone()], b":", value, b","].concat();
            input.splice(key.start..key.start, member);
        }
    }

    /// A value within many lists, or many objects.
    fn nest(&mut self, input: &mut Vec<u8>) {
        let Some(value) = self.value(input) else {
            return;
        };
        let depth = 1 << self.rng.u32(..10);
        let (open, close) = match self.rng.bool() {
            true => ("[", "]"),
            false => ("{\"parent\":", "}"),
        };
        let inner = &input[value.clone()];
        let nested = [
            open.repeat(depth).as_bytes(),
            inner,
            close.repeat(depth).as_bytes(),
        ]
        .concat();
        input.splice(value, nested);
    }

    /// A text that is longer, some with what must be escaped, some with what takes many bytes.
    fn lengthen(&mut self, input: &mut Vec<u8>) {
        let texts = texts(input);
        let unit = self
            .rng
            .choice(["a", "\u{1f4be}", "\\u0000", "../", "\\n", "1"])
            .expect("some");
        let times = 1 << self.rng.u32(..14);
        if let Some(text) = self.rng.choice(texts) {
            let at = text.end - 1;
            input.splice(at..at, unit.repeat(times).into_bytes());
        }
    }

    /// Where a value of JSON stands; a text, a number or a word, or what is between two brackets.
    fn value(&mut self, input: &[u8]) -> Option<Range<usize>> {
        let mut values = texts(input);
        values.extend(runs(input, |byte| {
            byte.is_ascii_alphanumeric() || b".+-".contains(byte)
        }));
        values.extend(brackets(input));
        self.rng.choice(values)
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.rng.usize(..from.len())]
    }

    /// A range of so many bytes, mostly a short one.
    fn range(&mut self, length: usize) -> Range<usize> {
        let start = self.rng.usize(..=length);
        let most = match self.rng.u8(..4) {
            0 => length - start,
            _ => 16.min(length - start),
        };
        start..start + self.rng.usize(..=most)
    }
}

/// The longest runs of such bytes.
fn runs(input: &[u8], within: impl Fn(&u8) -> bool) -> Vec<Range<usize>> {
    let mut runs: Vec<Range<usize>> = Vec::new();
    for at in input
        .iter()
        .enumerate()
        .filter(|(_, byte)| within(byte))
        .map(|(at, _)| at)
    {
        match runs.last_mut() {
            Some(run) if run.end == at => run.end = at + 1,
            _ => runs.push(at..at + 1),
        }
    }
    runs
}

/// What stands between two quotes, with them.
fn texts(input: &[u8]) -> Vec<Range<usize>> {
    let mut texts = Vec::new();
    let (mut start, mut escaped) = (None, false);
    for (at, byte) in input.iter().enumerate() {
        match (byte, start) {
            _ if escaped => escaped = false,
            (b'\\', Some(_)) => escaped = true,
            (b'"', None) => start = Some(at),
            (b'"', Some(first)) => {
                texts.push(first..at + 1);
                start = None;
            }
            _ => {}
        }
    }
    texts
}

/// What stands between two brackets, with them. Those in texts count, too: a mutant need not be sound.
fn brackets(input: &[u8]) -> Vec<Range<usize>> {
    let (mut open, mut pairs) = (Vec::new(), Vec::new());
    for (at, byte) in input.iter().enumerate() {
        match byte {
            b'{' | b'[' => open.push(at),
            b'}' | b']' => pairs.extend(open.pop().map(|start| start..at + 1)),
            _ => {}
        }
    }
    pairs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_of_json_are_found() {
        let input = br#"{"a\"": [10, "b"], "c": -1.5}"#;
        let shown = |ranges: Vec<Range<usize>>| -> Vec<String> {
            ranges
                .into_iter()
                .map(|range| input[range].escape_ascii().to_string())
                .collect()
        };
        assert_eq!(texts(input).len(), 3);
        assert_eq!(shown(runs(input, u8::is_ascii_digit)), ["10", "1", "5"]);
        assert_eq!(brackets(input), [8..17, 0..input.len()]);
    }

    #[test]
    fn a_seed_makes_the_same_mutants_and_they_differ() {
        let mutants = |seed| -> Vec<Vec<u8>> {
            let mut mutator = Mutator::new(
                seed,
                vec![br#"{"a": [1, "b"]}"#.to_vec(), b"[DEFAULT]".to_vec()],
            );
            (0..500).map(|_| mutator.next()).collect()
        };
        assert_eq!(mutants(1), mutants(1));
        let mut some = mutants(2);
        some.sort();
        some.dedup();
        assert!(some.len() > 300, "{}", some.len());
        assert!(some.iter().all(|mutant| mutant.len() <= LONGEST));
    }
}

//! The input of a fuzzer, read as a list of choices.

/// Choices left to make. An input that has ended chooses 0.
pub struct Choices<'a>(&'a [u8]);

impl<'a> Choices<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Choices(bytes)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn byte(&mut self) -> u8 {
        let Some((&first, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        first
    }

    /// A number below `bound`, which is at most 256.
    pub fn below(&mut self, bound: usize) -> usize {
        usize::from(self.byte()) % bound
    }

    /// A length: mostly short, sometimes more than a socket's buffers take.
    pub fn length(&mut self) -> usize {
        let byte = usize::from(self.byte());
        match byte % 8 {
            0 => 0,
            1..=4 => byte,
            5 | 6 => byte * 1021,
            _ => byte * 16_381,
        }
    }
}

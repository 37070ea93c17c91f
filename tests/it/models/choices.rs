//! The input of a fuzzer, read as a list of choices.

/// Choices left to make. An input that has ended chooses 0.
pub struct Choices {
    bytes: Vec<u8>,
    next: usize,
}

impl Choices {
    pub fn new(bytes: &[u8]) -> Self {
        Choices {
            bytes: bytes.to_vec(),
            next: 0,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.next >= self.bytes.len()
    }

    pub fn byte(&mut self) -> u8 {
        let byte = self.bytes.get(self.next).copied().unwrap_or(0);
        self.next += 1;
        byte
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

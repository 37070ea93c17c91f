//! What waits to be written to one peer: bytes of its own, and bytes shared with others.
//!
//! May touch: nothing. Mirrors Go's `net.Buffers`.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::rc::Rc;

/// A piece of what waits.
#[derive(Clone, Debug)]
pub(crate) enum Piece {
    Own(Vec<u8>),
    /// One payload for many peers.
    Shared(Rc<[u8]>),
}

impl Piece {
    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            Piece::Own(bytes) => bytes,
            Piece::Shared(bytes) => bytes,
        }
    }
}

/// Pieces up to this size are put together, so that a thousand small writes are one piece.
const SMALL: usize = 16 << 10;

/// Pieces that one write takes.
const PIECES_AT_ONCE: usize = 64;

/// Bytes that one write takes, so that nobody is held up by another's long answer: as many as one
/// read takes, and a run's budget is.
const BYTES_AT_ONCE: usize = 64 << 10;

#[derive(Debug, Default)]
pub(crate) struct OutQueue {
    pieces: VecDeque<Piece>,
    /// Of the first piece, what has gone.
    gone: usize,
    bytes: usize,
    /// What has gone since the queue was last empty: for errors.
    written: usize,
}

impl OutQueue {
    pub(crate) fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes
    }

    pub(crate) fn written(&self) -> usize {
        self.written
    }

    pub(crate) fn push(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        self.bytes += bytes.len();
        if let Some(Piece::Own(last)) = self.pieces.back_mut()
            && last.len() + bytes.len() <= SMALL
        {
            return last.extend_from_slice(bytes);
        }
        self.pieces.push_back(Piece::Own(bytes.to_vec()));
    }

    pub(crate) fn push_piece(&mut self, piece: Piece) {
        match piece {
            Piece::Own(bytes) if bytes.len() <= SMALL => self.push(&bytes),
            piece if piece.bytes().is_empty() => {}
            piece => {
                self.bytes += piece.bytes().len();
                self.pieces.push_back(piece);
            }
        }
    }

    /// What one write may take.
    pub(crate) fn slices(&self) -> Vec<IoSlice<'_>> {
        let mut skip = self.gone;
        let mut room = BYTES_AT_ONCE;
        let first = self.pieces.iter().take(PIECES_AT_ONCE);
        first
            .map(|piece| {
                let bytes = &piece.bytes()[std::mem::take(&mut skip)..];
                let bytes = &bytes[..bytes.len().min(room)];
                room -= bytes.len();
                IoSlice::new(bytes)
            })
            .take_while(|slice| !slice.is_empty())
            .collect()
    }

    /// So many bytes have gone.
    pub(crate) fn advance(&mut self, mut gone: usize) {
        self.bytes -= gone;
        self.written += gone;
        gone += self.gone;
        while let Some(first) = self.pieces.front()
            && first.bytes().len() <= gone
        {
            gone -= first.bytes().len();
            self.pieces.pop_front();
        }
        self.gone = gone;
        if self.bytes == 0 {
            // An idle connection holds no memory.
            *self = OutQueue::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{OutQueue, Piece};

    fn left(queue: &OutQueue) -> Vec<u8> {
        queue
            .slices()
            .iter()
            .flat_map(|slice| slice.to_vec())
            .collect()
    }

    #[test]
    fn bytes_leave_in_order_wherever_a_write_stops() {
        let shared = Piece::Shared((*b"456").into());
        for stop in 0..=9 {
            let mut queue = OutQueue::default();
            queue.push(b"0123");
            queue.push_piece(shared.clone());
            queue.push(b"78");
            assert_eq!(left(&queue), b"012345678"[..].to_vec().as_slice());
            queue.advance(stop);
            assert_eq!(
                (left(&queue), queue.len()),
                (b"012345678"[stop..].to_vec(), 9 - stop)
            );
            queue.push(b"9");
            queue.advance(9 - stop);
            assert_eq!(left(&queue), b"9");
        }
    }

    #[test]
    fn one_write_is_offered_so_much_and_no_more() {
        let mut queue = OutQueue::default();
        let piece: std::rc::Rc<[u8]> = vec![7; 100_000].into();
        (0..5).for_each(|_| queue.push_piece(Piece::Shared(piece.clone())));
        let lengths = |queue: &OutQueue| -> Vec<_> {
            let slices = queue.slices();
            slices.iter().map(|slice| slice.len()).collect()
        };
        assert_eq!(lengths(&queue), [65_536]);
        queue.advance(65_536);
        assert_eq!(lengths(&queue), [34_464, 31_072]);
    }

    #[test]
    fn a_thousand_small_writes_are_one_piece_and_a_shared_one_is_not_copied() {
        let mut queue = OutQueue::default();
        for _ in 0..1000 {
            queue.push(b"small");
        }
        assert_eq!(queue.pieces.len(), 1);
        let payload: std::rc::Rc<[u8]> = vec![7; 100].into();
        queue.push_piece(Piece::Shared(payload.clone()));
        assert_eq!(std::rc::Rc::strong_count(&payload), 2);
        queue.advance(5100);
        assert_eq!(std::rc::Rc::strong_count(&payload), 1);
        assert_eq!(queue.pieces.capacity(), 0);
    }
}

//! What waits to be written to one peer: bytes of its own, and bytes shared with others.

// Mirrors Go's `net.Buffers`.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::rc::Rc;
use std::sync::Arc;

/// Pieces are put together up to this size: a thousand small writes are one piece.
const CHUNK: usize = 64 << 10;

/// Shared bytes of less than this are copied: a piece costs as much as a few dozen bytes.
pub(super) const SMALL: usize = 1 << 10;

/// Pieces that one write takes.
const MAX_PIECES: usize = 64;

/// Bytes that one write takes: as many as one read, and as the budget of a run, so that a long answer
/// delays no other connection.
const MAX_BYTES: usize = 64 << 10;

/// A piece of what waits.
#[derive(Clone, Debug)]
pub(super) enum Piece {
    /// Never more than [`CHUNK`] bytes.
    Own(Vec<u8>),
    Shared(Rc<[u8]>),
    /// From another thread.
    Sent(Arc<[u8]>),
}

impl Piece {
    fn bytes(&self) -> &[u8] {
        match self {
            Piece::Own(bytes) => bytes,
            Piece::Shared(bytes) => bytes,
            Piece::Sent(bytes) => bytes,
        }
    }
}

/// What waits to be written to one peer. It takes at most about twice the memory of its bytes, and a
/// chunk.
#[derive(Debug, Default)]
pub(super) struct OutQueue {
    /// No piece is empty.
    pieces: VecDeque<Piece>,
    /// What has gone of the first piece: less than its length.
    gone: usize,
    /// What is left of all pieces.
    bytes: usize,
    /// What has gone since the queue was last empty, for errors.
    written: usize,
}

impl OutQueue {
    pub(super) fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    pub(super) fn len(&self) -> usize {
        self.bytes
    }

    /// How many bytes of memory its pieces are: a piece is kept until its last byte has gone.
    pub(super) fn held(&self) -> usize {
        self.bytes + self.gone
    }

    pub(super) fn written(&self) -> usize {
        self.written
    }

    pub(super) fn push(&mut self, mut bytes: &[u8]) {
        self.bytes += bytes.len();
        if let Some(Piece::Own(last)) = self.pieces.back_mut() {
            let room = CHUNK.saturating_sub(last.len()).min(bytes.len());
            last.extend_from_slice(&bytes[..room]);
            bytes = &bytes[room..];
        }
        let chunks = bytes.chunks(CHUNK).map(|chunk| Piece::Own(chunk.to_vec()));
        self.pieces.extend(chunks);
    }

    /// Puts the pieces of `other`, of which nothing has gone, behind these.
    pub(super) fn append(&mut self, other: OutQueue) {
        debug_assert_eq!(other.gone, 0, "nothing is sent from a mailbox");
        let pieces = other.pieces.into_iter();
        pieces.for_each(|piece| self.push_piece(piece));
    }

    /// Small pieces are copied and put together, shared ones too.
    pub(super) fn push_piece(&mut self, piece: Piece) {
        let small = match piece {
            Piece::Own(_) => CHUNK / 2,
            Piece::Shared(_) | Piece::Sent(_) => SMALL,
        };
        if piece.bytes().len() < small {
            return self.push(piece.bytes());
        }
        self.bytes += piece.bytes().len();
        self.pieces.push_back(piece);
    }

    /// The bytes of a queue of which nothing has gone.
    pub(super) fn concat(&self) -> Vec<u8> {
        debug_assert_eq!(self.gone, 0);
        let pieces: Vec<&[u8]> = self.pieces.iter().map(Piece::bytes).collect();
        pieces.concat()
    }

    /// What one write may take.
    pub(super) fn slices(&self) -> Vec<IoSlice<'_>> {
        let mut skip = self.gone;
        let mut room = MAX_BYTES;
        let first = self.pieces.iter().take(MAX_PIECES);
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

    /// Notes that so many bytes have gone.
    pub(super) fn advance(&mut self, mut gone: usize) {
        debug_assert!(gone <= self.bytes, "no more goes than waits");
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
        debug_assert_eq!(self.pieces.is_empty(), self.bytes == 0);
        let first = self.pieces.front().map_or(1, |piece| piece.bytes().len());
        debug_assert!(gone < first, "less than all of the first piece has gone");
        if self.bytes == 0 {
            // An idle connection holds no memory.
            *self = OutQueue::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{CHUNK, OutQueue, Piece, SMALL};
    use std::rc::Rc;

    fn left(queue: &OutQueue) -> Vec<u8> {
        queue
            .slices()
            .iter()
            .flat_map(|slice| slice.to_vec())
            .collect()
    }

    #[test]
    fn bytes_leave_in_order_wherever_a_write_stops() {
        let shared: Rc<[u8]> = vec![b'-'; SMALL].into();
        let whole = [b"0123", &*shared, b"78"].concat();
        for stop in [0, 1, 4, 5, SMALL + 3, SMALL + 4, SMALL + 5, SMALL + 6] {
            let mut queue = OutQueue::default();
            queue.push(b"0123");
            queue.push_piece(Piece::Shared(shared.clone()));
            queue.push(b"78");
            assert_eq!(left(&queue), whole);
            queue.advance(stop);
            assert_eq!(left(&queue), whole[stop..]);
            assert_eq!(queue.len(), whole.len() - stop);
            queue.push(b"9");
            queue.advance(whole.len() - stop);
            assert_eq!(left(&queue), b"9");
        }
    }

    #[test]
    fn one_write_is_offered_so_much_and_no_more() {
        let mut queue = OutQueue::default();
        let piece: Rc<[u8]> = vec![7; 100_000].into();
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
    fn small_writes_are_put_together_and_large_ones_cut_up() {
        let mut queue = OutQueue::default();
        (0..1000).for_each(|_| queue.push(b"small"));
        (0..1000).for_each(|_| queue.push_piece(Piece::Shared(Rc::from(*b"small"))));
        assert_eq!((queue.pieces.len(), queue.len()), (1, 10_000));
        queue.push(&vec![7; 3 * CHUNK]);
        assert_eq!(queue.pieces.len(), 4);
        assert!(
            queue
                .pieces
                .iter()
                .all(|piece| piece.bytes().len() <= CHUNK)
        );
        let mut mailed = OutQueue::default();
        mailed.append(queue);
        assert_eq!(mailed.len(), 10_000 + 3 * CHUNK);
    }

    #[test]
    fn what_many_peers_get_is_not_copied_and_let_go_when_it_has_gone() {
        let mut queue = OutQueue::default();
        let payload: Rc<[u8]> = vec![7; SMALL].into();
        queue.push_piece(Piece::Shared(payload.clone()));
        assert_eq!(Rc::strong_count(&payload), 2);
        queue.advance(SMALL);
        assert_eq!(Rc::strong_count(&payload), 1);
        assert_eq!(queue.pieces.capacity(), 0);
    }
}

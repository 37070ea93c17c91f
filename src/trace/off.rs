//! Without the feature `trace`: nothing is recorded.

use std::io;
use std::marker::PhantomData;

use super::{Kind, NOTHING};

#[derive(Clone, Default)]
pub(crate) struct Tape(());

impl Tape {
    pub(crate) fn new(_bytes: Option<usize>) -> io::Result<Self> {
        Ok(Tape(()))
    }
}

pub(crate) struct Recorder<W>(PhantomData<W>);

impl<W> Recorder<W> {
    pub(crate) fn new(_tape: Tape, _name: fn(&W) -> u64) -> Self {
        Recorder(PhantomData)
    }

    #[inline(always)]
    pub(crate) fn read(&self, _now: impl FnOnce() -> u64) {}

    #[inline(always)]
    pub(crate) fn put(&self, _kind: Kind, _id: u64, _detail: u64) {}

    #[inline(always)]
    pub(crate) fn by(&self) -> u64 {
        NOTHING
    }

    #[inline(always)]
    pub(crate) fn unpark(&self, _w: &W) {}
}

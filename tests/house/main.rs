//! Rules of the repository: imports point down, what the documents name exists, hot types stay small.

mod documents;
mod layers;
mod rust;
mod sizes;
mod suite;
mod tree;

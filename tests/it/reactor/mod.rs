mod faulty_selector;
mod idle;
mod stalls;
mod try_io;
mod turn;
mod views;

mod faulty_selector;
mod idle;
mod stalls;
mod turn;

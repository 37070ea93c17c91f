mod dead_worker;
mod dispatch;
mod workers;

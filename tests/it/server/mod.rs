mod dispatch;
mod drain;
mod workers;

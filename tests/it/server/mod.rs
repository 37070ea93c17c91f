mod age;
mod dispatch;
mod drain;
mod listeners;
mod starting;
mod workers;

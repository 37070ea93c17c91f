mod age;
mod churn;
mod dispatch;
mod drain;
mod listeners;
mod starting;
mod workers;

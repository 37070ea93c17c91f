mod age;
mod churn;
mod dispatch;
mod drain;
mod figures;
mod listeners;
mod starting;
mod workers;

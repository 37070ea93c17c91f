mod entries;
mod model;

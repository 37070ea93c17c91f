//! The wheel's corners, one by one; tests/wheel_model.rs covers the plain between them.

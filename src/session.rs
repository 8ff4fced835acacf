//! A process's membership: a lease that a background task renews.

mod deadline;

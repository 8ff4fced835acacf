//! A real etcd in child processes, for tests and examples.

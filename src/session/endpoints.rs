//! The addresses of etcd's members, in the forms in which callers have them.

/// One endpoint of etcd, or several: a string, an array, a slice or a `Vec` of strings.
///
/// # Examples
///
/// ```
/// use tenure::Endpoints;
///
/// assert_eq!("localhost:2379".into_endpoints(), ["localhost:2379"]);
/// assert_eq!(["a:2379", "b:2379"].into_endpoints(), ["a:2379", "b:2379"]);
/// ```
pub trait Endpoints {
    /// Returns the addresses, in the given order.
    fn into_endpoints(self) -> Vec<String>;
}

fn owned<E: AsRef<str>>(endpoints: &[E]) -> Vec<String> {
    endpoints.iter().map(|endpoint| endpoint.as_ref().to_owned()).collect()
}

impl Endpoints for &str {
    fn into_endpoints(self) -> Vec<String> {
        vec![self.to_owned()]
    }
}

impl Endpoints for String {
    fn into_endpoints(self) -> Vec<String> {
        vec![self]
    }
}

impl Endpoints for &String {
    fn into_endpoints(self) -> Vec<String> {
        vec![self.clone()]
    }
}

impl<E: AsRef<str>, const N: usize> Endpoints for [E; N] {
    fn into_endpoints(self) -> Vec<String> {
        owned(&self)
    }
}

impl<E: AsRef<str>, const N: usize> Endpoints for &[E; N] {
    fn into_endpoints(self) -> Vec<String> {
        owned(self)
    }
}

impl<E: AsRef<str>> Endpoints for &[E] {
    fn into_endpoints(self) -> Vec<String> {
        owned(self)
    }
}

impl<E: AsRef<str>> Endpoints for Vec<E> {
    fn into_endpoints(self) -> Vec<String> {
        owned(&self)
    }
}

impl<E: AsRef<str>> Endpoints for &Vec<E> {
    fn into_endpoints(self) -> Vec<String> {
        owned(self)
    }
}

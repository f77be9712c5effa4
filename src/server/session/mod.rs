//! Sessions and the registry that knows them.

pub(crate) mod registry;

//! Kernel tests in network namespaces.

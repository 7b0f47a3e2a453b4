//! latentd

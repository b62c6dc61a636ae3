//! SHA-1 on many lanes. (Written next.)

//! TODO rpc

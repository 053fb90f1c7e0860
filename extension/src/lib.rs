//! The extension: the gateway through which clients call agents.

//! Client of region nodes: forwards messages over one stream a node.

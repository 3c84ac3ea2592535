//! Strait's configuration: TOML and MirrorMaker 2 properties to one validated model.

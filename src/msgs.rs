//! ROS messages as plain structs and their CDR bytes. One set serves every middleware and the bags.

//! The region node: replicas of regions, and the executor that runs agents' turns.

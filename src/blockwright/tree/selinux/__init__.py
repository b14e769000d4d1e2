"""SELinux labels for a tree, by the rules of a policy's file_contexts."""

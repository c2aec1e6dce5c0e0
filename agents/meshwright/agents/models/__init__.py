"""Language models behind one small interface, and the rules of the offline one."""

"""The kernel side: BPF programs, their maps, and how they are attached and taken away again."""

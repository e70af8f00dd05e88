"""What is in a room: textures, materials, furniture, people, and how it is furnished."""

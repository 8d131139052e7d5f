"""The lessons: NAME.py is the code, cut into cells; NAME.en.md and NAME.zh.md tell the story around them."""

"""Symphony as published (arXiv 2311.16199): two embedders and one joint grid.

`symphony.build` knows it as the kind `paper`.
"""

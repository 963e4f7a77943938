"""The only package that imports llama_cpp: typed, numpy-friendly, small."""

"""The colours of techniques, in figures and in the UI."""

# Ten colours that people with any kind of colour vision tell apart, in this order.
# Petroff (2021), "Accessible color sequences for data visualization",
# https://arxiv.org/abs/2107.02270
COLOURS = ("#3f90da", "#ffa90e", "#bd1f01", "#94a4a2", "#832db6",
           "#a96b59", "#e76300", "#b9ac70", "#717581", "#92dadd")

"""A gallery of pictures, as somebody writes it who takes authapp in for its pages."""

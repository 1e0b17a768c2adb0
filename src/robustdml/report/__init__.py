"""Tables, figures and one self-contained page, from result files alone: no model is ever loaded."""

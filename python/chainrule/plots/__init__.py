"""Charts of a training run: loss and accuracy, learning rates, confusion matrix, mistakes.

Each function returns the `matplotlib.figure.Figure` that it drew on. By default that is a new
figure, which needs no display. pyplot does not manage it, so that it is not shown twice and is
freed like any other object. If you pass axes, it is their figure. ``figure.savefig("name.png")``
writes it to a file, and a notebook displays it. The first call imports matplotlib, which the extra
``chainrule[cli]`` installs.
"""

from .charts import confusion_matrix, history, lr_find
from .images import filters, mistakes

__all__ = ["confusion_matrix", "filters", "history", "lr_find", "mistakes"]

"""Pictures of a training: its course, the confusion matrix, the first layer, the mistakes.

Every function returns the `matplotlib.figure.Figure` that it drew on: a new one that pyplot does
not know of (it needs no display, is not shown twice, and goes when you let it go), or the one that
holds the axes you gave. ``figure.savefig("name.png")`` writes it; in a notebook it shows itself.
matplotlib is imported on the first call.
"""

from .charts import confusion_matrix, filters, history, mistakes

__all__ = ["confusion_matrix", "filters", "history", "mistakes"]

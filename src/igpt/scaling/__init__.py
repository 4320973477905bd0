"""How loss and accuracy follow from parameters and compute: the plan of a study, its fits, its page."""

from igpt.scaling.fits import Law, Optimum, StudyFit, fit_study, parabola, power_law
from igpt.scaling.measuring import Speed, measured_speed
from igpt.scaling.page import Measure, draw, page, plan_table
from igpt.scaling.plan import Planned, candidates, geometric, plan, training_operations

__all__ = [
    "Law", "Measure", "Optimum", "Planned", "Speed", "StudyFit", "candidates", "draw", "fit_study", "geometric",
    "measured_speed", "page", "parabola", "plan", "plan_table", "power_law", "training_operations",
]  # fmt: skip

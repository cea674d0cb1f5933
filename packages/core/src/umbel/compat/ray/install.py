"""Lets this process, and the workers of its session, import Ray's names. Importing it is all there is to it."""

from umbel.compat.ray import environment, modules, session

modules.install()
session.install()
environment.translate()
environment.install_in_workers()

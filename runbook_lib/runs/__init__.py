"""Running the notebooks: the plan, the run and JupyterLab on a working copy."""

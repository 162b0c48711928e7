"""The Prefect server, the workers and the runs behind `deploy`: starting, preparing, following and ending them."""

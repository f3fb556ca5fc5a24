"""uvicorn and what every HTTP answer has, whatever the route."""

"""What the tests share: servers, pictures, models, the one fake."""

"""What the papers on ResCa and DuCa say that methods cost, counted here beside it."""

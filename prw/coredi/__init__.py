"""CoReDi and relatives: features of a picture as a third stream that is drawn along with it."""

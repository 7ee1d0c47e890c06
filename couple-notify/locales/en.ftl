# Texts of mails. Every locale has the messages of this file, with the same variables; the build checks it.
# $app is the name of the app. Text of users ($name, $device) is in no subject.

code-subject = Your code for { $app }
sign-up-intro = Enter this code to confirm your address:
sign-in-intro = Your code to sign in:
email-intro = Enter this code to confirm your new address:
or-open-link = Or open this link:
confirm-button = Confirm address
sign-in-button = Sign in
code-and-link-lifetime = The code works for { $code_time }, the link for { $link_time }.
code-advice = If you did not ask for this, ignore this mail and nothing will happen. Do not share the code with anyone.

already-subject = You already have an account at { $app }
already-text = Someone, maybe you, tried to sign up at { $app } with this address, which already has an account.
already-advice = Sign in as always. If you forgot your password, ask for a new one there.

password-subject = Set a new password for { $app }
password-intro = Open this link to set a new password:
password-button = Set password
password-advice = If you did not ask for it, ignore this mail: your password stays.
link-lifetime = The link works for { $time }.

email-subject = Confirm your new address for { $app }
email-asked-subject = Your address at { $app } is to be changed
email-asked-text = Someone who is signed in to your account asked to use another address for it. If this was you, there is nothing to do.
email-asked-intro = If it was not you, open this link to keep this address:
email-asked-button = Keep this address
email-asked-advice = Then set a new password and sign out your other devices.
email-changed-subject = Your address at { $app } was changed
email-changed-text = Your account now has another address, and this one is no longer used.
email-changed-advice = If this was not you, answer this mail immediately.
email-confirmed-text = This address now belongs to your account at { $app }. From now on, sign in with it.

password-changed-subject = Your password at { $app } was changed
password-changed-text = Your password was set, and every other device is signed out.
password-changed-advice = If this was not you, ask for a new password immediately.

device-subject = New sign-in to your account at { $app }
device-text = A new device signed in to your account: { $device }, on { $time }.
device-unnamed-text = A new device signed in to your account on { $time }.
device-advice = If this was not you, set a new password immediately: this signs out every other device.

deletion-subject = Your account at { $app } will be deleted
deletion-text = Your account and everything that you wrote will be deleted on { $date }.
deletion-advice = If you change your mind, sign in before then.
deleted-subject = Your account at { $app } was deleted
deleted-text = Your account and everything that you wrote were deleted, as you asked. You will get no more mails from { $app }.

invitation-subject = An invitation at { $app }
invitation-text = { $name } wants to connect with you at { $app }.
invitation-unnamed-text = Somebody who knows your address wants to connect with you at { $app }. This mail does not say who: you see the name when you open the invitation.
invitation-intro = The code of the invitation:
invitation-button = Open invitation
invitation-expiry = Code and link work until { $time }.
invitation-advice = If you expect no invitation, ignore this mail and nothing will happen.
accepted-subject = Your invitation at { $app } was accepted
accepted-text = { $name } accepted your invitation. You are now connected at { $app }.
accepted-advice = If you do not know this person, end the connection in the app.

left-subject = Your connection at { $app } has ended
left-text = The person with whom you were connected at { $app } has ended the connection.
left-advice = There is nothing to do: your account stays.

# $form is the plural form of $count.
digest-subject = Unread messages at { $app }
digest-text =
    { $form ->
        [one] You have { $count } unread message at { $app }.
       *[other] You have { $count } unread messages at { $app }.
    }
digest-from-text =
    { $form ->
        [one] You have { $count } unread message from { $name } at { $app }.
       *[other] You have { $count } unread messages from { $name } at { $app }.
    }
digest-advice = Open the app to read and to answer.
digest-reason = You get this mail because you asked for mails about unread messages.
digest-stop = Stop these mails

# Page behind the link that stops the digests.
stop-title = Mails about unread messages
stop-question = Do you want to stop these mails?
stop-done = You will get no more mails about unread messages. You can switch them on again in the app.
stop-failed = This link does not work. Switch the mails off in the app.

news-subject = News from { $app }
news-text = Open the app.

# $form is the plural form of $count by CLDR. Always after "for", as in "works for 10 minutes".
duration-seconds =
    { $form ->
        [one] { $count } second
       *[other] { $count } seconds
    }
duration-minutes =
    { $form ->
        [one] { $count } minute
       *[other] { $count } minutes
    }
duration-hours =
    { $form ->
        [one] { $count } hour
       *[other] { $count } hours
    }
duration-days =
    { $form ->
        [one] { $count } day
       *[other] { $count } days
    }

# Long dates of CLDR. $time is hours and minutes, as 18:05.
date =
    { $month ->
        [1] January
        [2] February
        [3] March
        [4] April
        [5] May
        [6] June
        [7] July
        [8] August
        [9] September
        [10] October
        [11] November
       *[12] December
    } { $day }, { $year }
date-time = { $date }, { $time } UTC
